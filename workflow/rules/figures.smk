rule draw_searches:
    input:
        architectures=each_seed(f"{SEARCH}/architecture.json"),
        reports=each_seed(f"{SEARCH}/search.json"),
        traces=each_seed(f"{SEARCH}/search.csv"),
    output:
        cells=[
            reported_search(path, seed, "cells")
            for seed, path in by_seed(f"{FIGURES}/{{backbone}}/cells_{{search}}_seed{{seed}}.svg")
        ],
        searches=[
            reported_search(path, seed, "search")
            for seed, path in by_seed(f"{FIGURES}/{{backbone}}/search_{{search}}_seed{{seed}}.svg")
        ],
        images=each_seed(
            [
                f"{FIGURES}/{{backbone}}/cells_{{search}}_seed{{seed}}.png",
                f"{FIGURES}/{{backbone}}/search_{{search}}_seed{{seed}}.png",
            ]
        ),
    log:
        f"{RESULTS}/logs/draw_searches/{{dataset}}/{{backbone}}/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_searches/{{dataset}}/{{backbone}}/{{search}}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("draw_searches"),
        runtime=minutes("draw_searches"),
    params:
        script=SCRIPTS / "draw_searches.py",
        code=code("draw_searches.py"),
        searches=each_seed(SEARCH),
        titles=title_of_search,
    message:
        "Draw the searches of {wildcards.dataset} {wildcards.backbone} by {wildcards.search}"
    shell:
        "python {params.script:q} {params.searches:q} --titles {params.titles:q}"
        ' --output "$(dirname -- {output.cells[0]:q})" 2> {log:q}'


rule draw_results:
    input:
        curves=each_chain(f"{CHAIN}/training.csv"),
        evaluations=each_chain(f"{CHAIN}/evaluation.json"),
        summary=f"{TABLES}/summary.csv",
        seeds=f"{TABLES}/seeds.csv",
    output:
        training=report(
            f"{FIGURES}/training.svg",
            category="Training and evaluation",
            labels={"data set": "{dataset}", "figure": "training curves"},
            caption="../report/training.rst",
        ),
        accuracies=report(
            f"{FIGURES}/accuracies.svg",
            category="Training and evaluation",
            labels={"data set": "{dataset}", "figure": "accuracies"},
            caption="../report/accuracies.rst",
        ),
        cost=report(
            f"{FIGURES}/cost.svg",
            category="Training and evaluation",
            labels={"data set": "{dataset}", "figure": "accuracy and cost"},
            caption="../report/cost.rst",
        ),
        front=report(
            f"{FIGURES}/front.svg",
            category="Training and evaluation",
            labels={"data set": "{dataset}", "figure": "accuracy and size"},
            caption="../report/front.rst",
        ),
        images=expand(
            f"{FIGURES}/{{name}}.png", name=["training", "accuracies", "cost", "front"], allow_missing=True
        ),
    log:
        f"{RESULTS}/logs/draw_results/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_results/{{dataset}}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("draw_results"),
        runtime=minutes("draw_results"),
    params:
        script=SCRIPTS / "draw_results.py",
        code=code("draw_results.py"),
        chains=each_chain(CHAIN),
    message:
        "Draw the results of {wildcards.dataset}"
    shell:
        'python {params.script:q} {params.chains:q} --tables "$(dirname -- {input.summary:q})"'
        ' --output "$(dirname -- {output.training:q})" 2> {log:q}'
