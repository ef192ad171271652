rule aggregate_tables:
    input:
        searches=all_chains(f"{SEARCH}/search.json"),
        descriptions=all_chains(f"{CHAIN}/model.json"),
        evaluations=all_chains(f"{CHAIN}/evaluation.json"),
        episodes=all_chains(f"{CHAIN}/episodes.csv"),
        transfers=all_transfers(f"{EVALUATION}/evaluation.json"),
        transfer_episodes=all_transfers(f"{EVALUATION}/episodes.csv"),
    output:
        summary=report(
            f"{TABLES}/summary.csv",
            category="Tables",
            labels={"table": "all rows"},
            caption="../report/summary.rst",
        ),
        table1=report(
            f"{TABLES}/table1.csv", category="Tables", labels={"table": "Table 1"}, caption="../report/table1.rst"
        ),
        table2=report(
            f"{TABLES}/table2.csv", category="Tables", labels={"table": "Table 2"}, caption="../report/table2.rst"
        ),
        differences=report(
            f"{TABLES}/differences.csv",
            category="Tables",
            labels={"table": "differences"},
            caption="../report/differences.rst",
        ),
        costs=report(
            f"{TABLES}/costs.csv", category="Tables", labels={"table": "costs"}, caption="../report/costs.rst"
        ),
        published=report(
            f"{TABLES}/published.csv",
            category="Tables",
            labels={"table": "published results"},
            caption="../report/published.rst",
        ),
        # Without rows it is no part of the report.
        transfer=(
            report(
                f"{TABLES}/transfer.csv",
                category="Tables",
                labels={"table": "transfer"},
                caption="../report/transfer.rst",
            )
            if CONFIG.transfers
            else f"{TABLES}/transfer.csv"
        ),
        texts=expand(
            f"{TABLES}/{{table}}.{{suffix}}",
            table=["summary", "table1", "table2", "differences", "costs", "published", "transfer"],
            suffix=["md", "tex"],
        ),
        seeds=f"{TABLES}/seeds.csv",
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
        ' --output "$(dirname -- {output.summary:q})" 2> {log:q}'


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
