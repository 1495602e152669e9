"""Everything that a machine without a network needs, in one folder: made by `appliance bundle`, checked and used
by `make install-offline`.

A bundle is the checkout itself with its models prepared, and besides:

    offline/bundle.json     what it is and what it needs (`about`)
    offline/sbom.cdx.json   every package and model in it, as a CycloneDX software bill of materials (`sbom`)
    offline/wheels/         the packages that configs/locks name (`locks`, `wheels`)
    offline/packages/       libnuma for hosts that lack it, for vLLM without a GPU
    SHA256SUMS              every file above, written last (`sums`)

`collect` makes it. `check` stands before everything else on the machine without a network: it is run by the host's
own Python, so it, `about` and `sums` need the standard library only.
"""
