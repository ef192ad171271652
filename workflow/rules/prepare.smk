rule prepare_dataset:
    input:
        code=code("prepare_dataset.py"),
    output:
        arrays=expand(
            f"{DATA}/{{part}}/{{array}}.npy",
            part=["train", "val", "test"],
            array=["images", "labels"],
            allow_missing=True,
        ),
        manifest=f"{DATA}/manifest.json",
    params:
        options=dataset_options,
        ways=ways,
    log:
        f"{RESULTS}/logs/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_dataset/{{dataset}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        ENVIRONMENT
    message:
        "Prepare {wildcards.dataset}"
    shell:
        "python {SCRIPTS}/prepare_dataset.py --name {wildcards.dataset} --options {params.options:q}"
        " --ways {params.ways} --output $(dirname {output.manifest}) 2> {log}"
