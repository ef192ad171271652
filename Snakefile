# For `snakemake` from the root; the workflow catalogue looks for workflow/Snakefile.
include: "workflow/Snakefile"


# Of included files Snakemake forgets which rule is the default; a workflow that uses this as a module renames it.
workflow.default_target = workflow.modifier.modify_rulename("all")
