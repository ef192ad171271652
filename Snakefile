# For `snakemake` from the root; the workflow catalogue looks for workflow/Snakefile.
include: "workflow/Snakefile"
