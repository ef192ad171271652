THEORY_FIGURES = ["determinism", "formula", "convergence", "regression", "learners"]
THEORY_TABLES = ["kernels", "convergence", "bounds", "regression", "learners", "verdicts"]


rule verify_theory:
    output:
        report=report(
            f"{THEORY}/theory.md", category="Theory", labels={"figure": "verdicts"}, caption="../report/theory.rst"
        ),
        determinism=report(
            f"{THEORY}/determinism.svg",
            category="Theory",
            labels={"figure": "determinism"},
            caption="../report/determinism.rst",
        ),
        formula=report(
            f"{THEORY}/formula.svg",
            category="Theory",
            labels={"figure": "formula"},
            caption="../report/formula.rst",
        ),
        convergence=report(
            f"{THEORY}/convergence.svg",
            category="Theory",
            labels={"figure": "convergence"},
            caption="../report/convergence.rst",
        ),
        regression=report(
            f"{THEORY}/regression.svg",
            category="Theory",
            labels={"figure": "regression"},
            caption="../report/regression.rst",
        ),
        learners=report(
            f"{THEORY}/learners.svg",
            category="Theory",
            labels={"figure": "learners"},
            caption="../report/learners.rst",
        ),
        images=expand(f"{THEORY}/{{name}}.png", name=THEORY_FIGURES),
        tables=expand(f"{THEORY}/{{name}}.csv", name=THEORY_TABLES),
        description=f"{THEORY}/theory.json",
    log:
        f"{RESULTS}/logs/verify_theory.log",
    benchmark:
        f"{RESULTS}/benchmarks/verify_theory.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("verify_theory"),
        runtime=minutes("verify_theory"),
    params:
        script=SCRIPTS / "verify_theory.py",
        code=code("verify_theory.py"),
        options=theory_options,
    message:
        "Check the theorems in numbers"
    shell:
        'python {params.script:q} --options {params.options:q} --output "$(dirname -- {output.report:q})" 2> {log:q}'


# A target of its own, not a part of `all`: it reads no images, and minutes go into it.
rule theory:
    input:
        rules.verify_theory.output,
    message:
        "The report of the theory is there"
