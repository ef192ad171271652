# A cluster's nodes may have no network, so this runs where Snakemake does.
rule download_dataset:
    output:
        files=f"{RESULTS}/{{dataset}}/download/files.json",
    log:
        f"{RESULTS}/logs/download_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/download_dataset/{{dataset}}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("download_dataset"),
        runtime=minutes("download_dataset"),
    params:
        script=SCRIPTS / "download_dataset.py",
        code=code("download_dataset.py"),
        options=dataset_options,
    message:
        "Download {wildcards.dataset}, where it is missing"
    shell:
        'python {params.script:q} --options {params.options:q} --output "$(dirname -- {output.files:q})" 2> {log:q}'


rule prepare_dataset:
    input:
        images=source_files,
        # What was fetched is checked by its checksums, or its counts, when it is read.
        download=ancient(downloaded),
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
        # Not among params: data are the same whatever is taken of them.
        needs=needs_of_rows,
    params:
        script=SCRIPTS / "prepare_dataset.py",
        code=code("prepare_dataset.py"),
        options=dataset_options,
        listing=source_listing,
    message:
        "Prepare {wildcards.dataset}"
    shell:
        "python {params.script:q} --name {wildcards.dataset} --options {params.options:q} --needs {resources.needs:q}"
        ' --output "$(dirname -- {output.manifest:q})" 2> {log:q}'
