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
        mem_mb=4000,
        runtime=240,
    params:
        options=search_options,
        shape=run_shape,
    message:
        "Search {wildcards.dataset} {wildcards.run} with {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {input.code[0]} --data $(dirname {input.manifest}) {params.shape}"
        " --seed {wildcards.seed} --options {params.options:q} --output $(dirname {output.genotype}) 2> {log}"
