rule inspect_dataset:
    input:
        manifest=f"{DATA}/manifest.json",
        arrays=ancient(
            expand(
                f"{DATA}/{{part}}/{{array}}.npy",
                part=["train", "val", "test"],
                array=["images", "labels"],
                allow_missing=True,
            )
        ),
    output:
        sheet=report(
            f"{FIGURES}/contact_sheet.png",
            category="Data",
            labels={"data set": "{dataset}", "figure": "images"},
            caption="../report/contact_sheet.rst",
        ),
    log:
        f"{RESULTS}/logs/inspect_dataset/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/inspect_dataset/{{dataset}}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("inspect_dataset"),
        runtime=minutes("inspect_dataset"),
    params:
        script=SCRIPTS / "inspect_dataset.py",
        code=code("inspect_dataset.py"),
    message:
        "Draw images of {wildcards.dataset}"
    shell:
        'python {params.script:q} "$(dirname -- {input.manifest:q})"'
        ' --output "$(dirname -- {output.sheet:q})" > {log:q} 2>&1'
