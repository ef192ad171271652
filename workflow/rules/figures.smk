rule draw_figures:
    input:
        code=code("draw_figures.py"),
        genotypes=each_part(f"{PART}/genotype.json"),
        traces=each_part(f"{PART}/search.csv"),
        curves=each_part(f"{PART}/training.csv"),
        evaluations=each_part(f"{PART}/evaluation.json"),
        summary=f"{TABLES}/summary.csv",
        seeds=f"{TABLES}/seeds.csv",
    output:
        cells=report(
            each_part(f"{FIGURES}/cells_{{method}}_seed{{seed}}.svg"),
            category="Cells",
            caption="../report/cells.rst",
        ),
        searches=report(
            each_part(f"{FIGURES}/search_{{method}}_seed{{seed}}.svg"),
            category="Searches",
            caption="../report/search.rst",
        ),
        training=report(
            f"{FIGURES}/training.svg",
            category="Training and evaluation",
            caption="../report/training.rst",
        ),
        accuracies=report(
            f"{FIGURES}/accuracies.svg",
            category="Training and evaluation",
            caption="../report/accuracies.rst",
        ),
        cost=report(
            f"{FIGURES}/cost.svg",
            category="Training and evaluation",
            caption="../report/cost.rst",
        ),
        pictures=each_part(
            [f"{FIGURES}/cells_{{method}}_seed{{seed}}.png", f"{FIGURES}/search_{{method}}_seed{{seed}}.png"]
        )
        + expand(f"{FIGURES}/{{name}}.png", name=["training", "accuracies", "cost"], allow_missing=True),
    log:
        f"{RESULTS}/logs/draw_figures/{{dataset}}/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figures/{{dataset}}/{{run}}.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("draw_figures"),
        runtime=minutes("draw_figures"),
    params:
        parts=each_part(PART),
    message:
        "Draw the figures of {wildcards.dataset} {wildcards.run}"
    shell:
        "python {input.code[0]} {params.parts} --tables $(dirname {input.summary})"
        " --output $(dirname {output.training}) 2> {log}"
