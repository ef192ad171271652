rule search_architecture:
    input:
        code=code("search_architecture.py"),
        manifest=f"{DATA}/manifest.json",
        # Large files: the manifest holds their checksums, so their own times need not count.
        arrays=ancient([f"{DATA}/train/images.npy", f"{DATA}/train/labels.npy"]),
    output:
        genotype=f"{PART}/genotype.json",
        trace=f"{PART}/search.csv",
        report=f"{PART}/search.json",
    log:
        f"{RESULTS}/logs/search_architecture/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/search_architecture/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("search_architecture"),
        runtime=minutes("search_architecture"),
    params:
        options=search_options,
        shape=run_shape,
    message:
        "Search {wildcards.dataset} {wildcards.run} with {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {input.code[0]} --data $(dirname {input.manifest}) {params.shape}"
        " --seed {wildcards.seed} --options {params.options:q} --output $(dirname {output.genotype}) 2> {log}"


# Not part of `all`: name the files to have them, results/<dataset>/<run>/<method>/rank_stability/rank_stability.csv.
rule measure_rank_stability:
    input:
        code=code("measure_rank_stability.py"),
        manifest=f"{DATA}/manifest.json",
        arrays=ancient([f"{DATA}/train/images.npy", f"{DATA}/train/labels.npy"]),
    output:
        table=f"{STABILITY}/rank_stability.csv",
        figure=f"{STABILITY}/rank_stability.svg",
        picture=f"{STABILITY}/rank_stability.png",
    log:
        f"{RESULTS}/logs/measure_rank_stability/{{dataset}}/{{run}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_rank_stability/{{dataset}}/{{run}}/{{method}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("measure_rank_stability"),
        runtime=minutes("measure_rank_stability"),
    params:
        options=search_options,
        shape=run_shape,
    message:
        "Measure how stable the ranks of {wildcards.dataset} {wildcards.run} are with {wildcards.method}"
    shell:
        "python {input.code[0]} --data $(dirname {input.manifest}) {params.shape}"
        " --options {params.options:q} --output $(dirname {output.table}) 2> {log}"
