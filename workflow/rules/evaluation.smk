rule evaluate_episodes:
    input:
        code=code("evaluate_episodes.py"),
        manifest=f"{DATA}/manifest.json",
        arrays=ancient([f"{DATA}/test/images.npy", f"{DATA}/test/labels.npy"]),
        description=f"{PART}/backbone.json",
        # The description holds its checksum.
        weights=ancient(f"{PART}/backbone.safetensors"),
    output:
        episodes=f"{PART}/episodes.csv",
        evaluation=f"{PART}/evaluation.json",
    log:
        f"{RESULTS}/logs/evaluate_episodes/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_episodes/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("evaluate_episodes"),
        runtime=minutes("evaluate_episodes"),
    params:
        options=evaluation_options,
    message:
        "Evaluate {wildcards.dataset} {wildcards.run} {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {input.code[0]} --data $(dirname {input.manifest})"
        " --backbone $(dirname {input.description}) --options {params.options:q}"
        " --output $(dirname {output.evaluation}) 2> {log}"
