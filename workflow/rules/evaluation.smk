rule evaluate_episodes:
    input:
        manifest=tested_data("manifest.json"),
        arrays=ancient(tested_data("test/images.npy", "test/labels.npy")),
        description=f"{CHAIN}/model.json",
        # The description holds its checksum.
        weights=ancient(f"{CHAIN}/model.safetensors"),
    output:
        episodes=f"{EVALUATION}/episodes.csv",
        evaluation=f"{EVALUATION}/evaluation.json",
    log:
        f"{RESULTS}/logs/evaluate_episodes/{EVALUATION_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_episodes/{EVALUATION_JOB}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory("evaluate_episodes"),
        runtime=minutes("evaluate_episodes"),
    params:
        script=SCRIPTS / "evaluate_episodes.py",
        code=code("evaluate_episodes.py", backbone="backbones", learner="learners"),
        options=evaluation_options,
    message:
        "Evaluate {wildcards.dataset} {wildcards.backbone} {wildcards.search} {wildcards.learner}{wildcards.on}, seed {wildcards.seed}"
    shell:
        'python {params.script:q} --data "$(dirname -- {input.manifest:q})"'
        ' --model "$(dirname -- {input.description:q})" --options {params.options:q}'
        ' --output "$(dirname -- {output.evaluation:q})" 2> {log:q}'
