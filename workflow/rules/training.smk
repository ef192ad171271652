rule train_genotype:
    input:
        code=code("train_genotype.py"),
        manifest=f"{DATA}/manifest.json",
        arrays=ancient([f"{DATA}/train/images.npy", f"{DATA}/train/labels.npy"]),
        genotype=f"{PART}/genotype.json",
    output:
        weights=f"{PART}/backbone.safetensors",
        description=f"{PART}/backbone.json",
        curve=f"{PART}/training.csv",
    log:
        f"{RESULTS}/logs/train_genotype/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_genotype/{{dataset}}/{{run}}/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory("train_genotype"),
        runtime=minutes("train_genotype"),
    params:
        options=training_options,
        shape=run_shape,
    message:
        "Train {wildcards.dataset} {wildcards.run} {wildcards.method}, seed {wildcards.seed}"
    shell:
        "python {input.code[0]} --data $(dirname {input.manifest}) --genotype {input.genotype}"
        " {params.shape} --seed {wildcards.seed} --options {params.options:q}"
        " --output $(dirname {output.weights}) 2> {log}"
