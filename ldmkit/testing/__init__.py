"""The contract kit: what every part of a kind promises, as checks that anybody can run on their own part.

    from ldmkit.testing import check_sampler
    check_sampler(MySampler).require()

`pytest --ldmkit my-distribution` runs the checks of all parts of a distribution; `ldmkit plugins
check NAME` those of one part.
"""
