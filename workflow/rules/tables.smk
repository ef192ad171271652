rule aggregate_tables:
    input:
        code=code("aggregate_tables.py"),
        searches=each(f"{PART}/search.json"),
        descriptions=each(f"{PART}/backbone.json"),
        episodes=each(f"{PART}/episodes.csv"),
    output:
        summary=report(f"{TABLES}/summary.csv", category="Tables", caption="../report/summary.rst"),
        table1=report(f"{TABLES}/table1.csv", category="Tables", caption="../report/table1.rst"),
        table2=report(f"{TABLES}/table2.csv", category="Tables", caption="../report/table2.rst"),
        costs=report(f"{TABLES}/costs.csv", category="Tables", caption="../report/costs.rst"),
        texts=expand(
            f"{TABLES}/{{table}}.{{suffix}}",
            table=["summary", "table1", "table2", "costs"],
            suffix=["md", "tex"],
        ),
        seeds=f"{TABLES}/seeds.csv",
    log:
        f"{RESULTS}/logs/aggregate_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate_tables.tsv"
    conda:
        ENVIRONMENT
    container:
        IMAGE
    threads: 1
    resources:
        mem_mb=memory("aggregate_tables"),
        runtime=minutes("aggregate_tables"),
    params:
        parts=each(PART),
    message:
        "Aggregate the tables"
    shell:
        "python {input.code[0]} {params.parts} --output $(dirname {output.summary}) 2> {log}"
