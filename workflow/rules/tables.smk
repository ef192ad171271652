rule aggregate_tables:
    input:
        searches=all_chains(f"{SEARCH}/search.json"),
        descriptions=all_chains(f"{CHAIN}/model.json"),
        evaluations=all_chains(f"{CHAIN}/evaluation.json"),
        episodes=all_chains(f"{CHAIN}/episodes.csv"),
        transfers=all_transfers(f"{EVALUATION}/evaluation.json"),
        transfer_episodes=all_transfers(f"{EVALUATION}/episodes.csv"),
    output:
        pages=[reported_table(name, label) for name, label in TABLE_LABELS.items()],
        texts=expand(f"{TABLES}/{{table}}.{{suffix}}", table=TABLE_LABELS, suffix=["csv", "md", "tex"]),
        seeds=f"{TABLES}/seeds.csv",
        cover=f"{TABLES}/cover.rst",
        missing=f"{TABLES}/missing.csv",
    log:
        f"{RESULTS}/logs/aggregate_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate_tables.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("aggregate_tables"),
        runtime=minutes("aggregate_tables"),
    params:
        script=SCRIPTS / "aggregate_tables.py",
        code=code("aggregate_tables.py"),
        chains=all_chains(CHAIN),
        transfers=all_transfers(EVALUATION),
        results=results_folder,
        titles=titles,
    message:
        "Aggregate the tables"
    shell:
        "python {params.script:q} {params.chains:q} --transfers {params.transfers:q}"
        " --results {params.results:q} --titles {params.titles:q}"
        ' --output "$(dirname -- {output.cover:q})" 2> {log:q}'


# `make tables`: what is finished so far, at any time; what is missing is named here and in missing.csv.
rule tabulate_finished:
    log:
        f"{RESULTS}/logs/tabulate_finished.log",
    localrule: True
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("tabulate_finished"),
        runtime=minutes("tabulate_finished"),
    params:
        script=SCRIPTS / "aggregate_tables.py",
        chains=all_chains(CHAIN),
        transfers=all_transfers(EVALUATION),
        results=results_folder,
        titles=titles,
        tables=PARTIAL_TABLES,
    message:
        "Tabulate what is finished"
    shell:
        "python {params.script:q} {params.chains:q} --transfers {params.transfers:q} --partial"
        " --results {params.results:q} --titles {params.titles:q} --output {params.tables:q} 2>&1 | tee {log:q} >&2"
