rule train_network:
    input:
        manifest=f"{DATA}/manifest.json",
        arrays=ancient([f"{DATA}/train/images.npy", f"{DATA}/train/labels.npy"]),
        architecture=f"{SEARCH}/architecture.json",
        files=backbone_files,
    output:
        weights=f"{CHAIN}/model.safetensors",
        description=f"{CHAIN}/model.json",
        curve=f"{CHAIN}/training.csv",
    log:
        f"{RESULTS}/logs/train_network/{CHAIN_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_network/{CHAIN_JOB}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: THREADS
    resources:
        gpu=gpus("learners", "learner"),
        mem_mb=memory("train_network"),
        runtime=minutes("train_network"),
    params:
        script=SCRIPTS / "train_network.py",
        code=code("train_network.py", backbone="backbones", learner="learners"),
        learner=options("learners", "learner"),
    message:
        "Train {wildcards.dataset} {wildcards.backbone} {wildcards.search} by {wildcards.learner}, seed {wildcards.seed}"
    shell:
        'python {params.script:q} --data "$(dirname -- {input.manifest:q})" --architecture {input.architecture:q}'
        " --learner {params.learner:q} --learner-name {wildcards.learner}"
        ' --seed {wildcards.seed} --output "$(dirname -- {output.weights:q})" 2> {log:q}'
