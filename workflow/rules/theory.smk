# Statement 7 trains many architectures: it is left out unless the configuration asks for some.
SEVENTH = ["correlations"] if CONFIG.trainability.architectures else []
THEORY_FIGURES = ["determinism", "formula", "convergence", "regression", "learners", *SEVENTH]
THEORY_TABLES = ["kernels", "convergence", "bounds", "regression", "learners", "verdicts", *SEVENTH]


rule verify_theory:
    input:
        code=code("verify_theory.py"),
        trainability=[f"{THEORY}/trainability.csv"] if SEVENTH else [],
    output:
        report=report(f"{THEORY}/theory.md", category="Theory", caption="../report/theory.rst"),
        determinism=report(f"{THEORY}/determinism.svg", category="Theory", caption="../report/determinism.rst"),
        formula=report(f"{THEORY}/formula.svg", category="Theory", caption="../report/formula.rst"),
        convergence=report(f"{THEORY}/convergence.svg", category="Theory", caption="../report/convergence.rst"),
        regression=report(f"{THEORY}/regression.svg", category="Theory", caption="../report/regression.rst"),
        learners=report(f"{THEORY}/learners.svg", category="Theory", caption="../report/learners.rst"),
        correlations=report(
            expand(f"{THEORY}/{{name}}.svg", name=SEVENTH),
            category="Theory",
            caption="../report/correlations.rst",
        ),
        pictures=expand(f"{THEORY}/{{name}}.png", name=THEORY_FIGURES),
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
        options=theory_options,
        trainability=f"--trainability {THEORY}/trainability.csv" if SEVENTH else "",
    message:
        "Check the theorems in numbers"
    shell:
        "python {input.code[0]} --options {params.options:q} {params.trainability}"
        " --output $(dirname {output.report}) 2> {log}"


rule measure_trainability:
    input:
        code=code("measure_trainability.py"),
    output:
        table=f"{THEORY}/trainability.csv",
        description=f"{THEORY}/trainability.json",
    log:
        f"{RESULTS}/logs/measure_trainability.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_trainability.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_trainability"),
        runtime=minutes("measure_trainability"),
    params:
        options=trainability_options,
    message:
        "Measure how architectures train, for statement 7 of the theory"
    shell:
        "python {input.code[0]} --options {params.options:q} --output $(dirname {output.table}) 2> {log}"
