rule search_architecture:
    input:
        manifest=f"{DATA}/manifest.json",
        # Large files: the manifest holds their checksums, so their own times need not count.
        arrays=ancient(
            expand(
                f"{DATA}/{{part}}/{{array}}.npy",
                part=["train", "val"],
                array=["images", "labels"],
                allow_missing=True,
            )
        ),
        files=files_of_search,
    output:
        architecture=f"{SEARCH}/architecture.json",
        trace=f"{SEARCH}/search.csv",
        report=f"{SEARCH}/search.json",
    log:
        f"{RESULTS}/logs/search_architecture/{SEARCH_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/search_architecture/{SEARCH_JOB}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: THREADS
    resources:
        gpu=gpus("searches", "search"),
        mem_mb=memory("search_architecture"),
        runtime=minutes("search_architecture"),
    params:
        script=SCRIPTS / "search_architecture.py",
        code=code("search_architecture.py", shape_of="backbone", search="searches"),
        backbone=options("backbones", "backbone"),
        search=options("searches", "search"),
    message:
        "Search {wildcards.dataset} {wildcards.backbone} by {wildcards.search}, seed {wildcards.seed}"
    shell:
        'python {params.script:q} --data "$(dirname -- {input.manifest:q})"'
        " --backbone {params.backbone:q} --backbone-name {wildcards.backbone}"
        " --search {params.search:q} --search-name {wildcards.search}"
        ' --seed {wildcards.seed} --output "$(dirname -- {output.architecture:q})" 2> {log:q}'


# Not part of `all`: name the files to have them, results/<dataset>/<backbone>/<search>/rank_stability/rank_stability.csv.
rule measure_rank_stability:
    input:
        manifest=f"{DATA}/manifest.json",
        arrays=ancient([f"{DATA}/train/images.npy", f"{DATA}/train/labels.npy"]),
    output:
        table=f"{STABILITY}/rank_stability.csv",
        figure=f"{STABILITY}/rank_stability.svg",
        image=f"{STABILITY}/rank_stability.png",
    log:
        f"{RESULTS}/logs/measure_rank_stability/{{dataset}}/{{backbone}}/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_rank_stability/{{dataset}}/{{backbone}}/{{search}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory("measure_rank_stability"),
        runtime=minutes("measure_rank_stability"),
    params:
        script=SCRIPTS / "measure_rank_stability.py",
        code=code("measure_rank_stability.py", shape_of="backbone", search="searches"),
        backbone=options("backbones", "backbone"),
        search=options("searches", "search"),
    message:
        "Measure how stable the ranks of {wildcards.dataset} {wildcards.backbone} are with {wildcards.search}"
    shell:
        'python {params.script:q} --data "$(dirname -- {input.manifest:q})" --backbone {params.backbone:q}'
        ' --search {params.search:q} --output "$(dirname -- {output.table:q})" 2> {log:q}'
