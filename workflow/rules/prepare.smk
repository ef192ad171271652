rule prepare_dataset:
    input:
        code=code("prepare_dataset.py"),
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
        options=dataset_options,
        listing=source_listing,
    message:
        "Prepare {wildcards.dataset}"
    shell:
        "python {input.code[0]} --name {wildcards.dataset} --options {params.options:q}"
        " --output $(dirname {output.manifest}) 2> {log}"
