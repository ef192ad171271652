# What a criterion is worth: a target of its own, not a part of `all`.
rule score_architecture:
    input:
        manifest=f"{DATA}/manifest.json",
        arrays=ancient(
            expand(
                f"{DATA}/{{part}}/{{array}}.npy",
                part=["train", "val"],
                array=["images", "labels"],
                allow_missing=True,
            )
        ),
        architecture=f"{SEARCH}/architecture.json",
    output:
        SCORES,
    log:
        f"{RESULTS}/logs/score_architecture/{SEARCH_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_architecture/{SEARCH_JOB}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("score_architecture"),
        runtime=minutes("score_architecture"),
    params:
        script=SCRIPTS / "score_architecture.py",
        code=code_of_scores,
        options=study_options,
    message:
        "Score {wildcards.dataset} {wildcards.backbone} {wildcards.search}, seed {wildcards.seed}"
    shell:
        'python {params.script:q} --data "$(dirname -- {input.manifest:q})" --architecture {input.architecture:q}'
        " --options {params.options:q} --output {output:q} 2> {log:q}"


rule compare_criteria:
    input:
        scores=studied_scores,
        evaluations=trained_architectures(f"{CHAIN}/evaluation.json"),
    output:
        correlations=report(
            f"{CRITERIA}/correlations.csv",
            category="Criteria",
            labels={"table": "correlations"},
            caption="../report/criteria.rst",
        ),
        text=f"{CRITERIA}/correlations.md",
        scores=f"{CRITERIA}/scores.csv",
    log:
        f"{RESULTS}/logs/compare_criteria.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_criteria.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("compare_criteria"),
        runtime=minutes("compare_criteria"),
    params:
        script=SCRIPTS / "compare_criteria.py",
        code=code("compare_criteria.py"),
        chains=trained_architectures(CHAIN),
    message:
        "Compare the criteria"
    shell:
        'python {params.script:q} {params.chains:q} --output "$(dirname -- {output.scores:q})" 2> {log:q}'


rule study:
    input:
        rules.compare_criteria.output,
    message:
        "The comparison of the criteria is there"
