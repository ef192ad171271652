rule prepare_dataset:
    input:
        pictures=source_files,
    output:
        arrays=expand(
            f"{DATA}/{{part}}/{{array}}.npy",
            part=["train", "val", "test"],
            array=["images", "labels"],
            allow_missing=True,
        ),
        manifest=f"{DATA}/manifest.json",
    log:
        f"{RESULTS}/logs/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_dataset/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("prepare_dataset"),
        runtime=minutes("prepare_dataset"),
    params:
        script=SCRIPTS / "prepare_dataset.py",
        code=code("prepare_dataset.py"),
        options=dataset_options,
        listing=source_listing,
    message:
        "Prepare {wildcards.dataset}"
    shell:
        "python {params.script} --name {wildcards.dataset} --options {params.options:q}"
        " --output $(dirname {output.manifest:q}) 2> {log:q}"
