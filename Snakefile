from snakemake.utils import min_version

min_version("9.0")

# A configuration named with --configfile stands alone: it is not laid over the default one.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/inspect.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/study.smk"


rule all:
    default_target: True
    input:
        expand(rules.inspect_dataset.output, dataset=CONFIG.datasets),
        rules.aggregate_tables.output,
        expand(rules.draw_results.output, dataset=CONFIG.datasets),
        searched(rules.draw_searches.output),


onerror:
    # A stage's own line, which Snakemake's report of the failed job does not hold.
    for line in metantk.runtime.failures.read_failures(log):
        print(line, file=sys.stderr)
