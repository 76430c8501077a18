"""scenebeam: satellite scenes to mosaics, stacks and training chips, on Apache Beam.

    from scenebeam.requestfile import load_request
    from scenebeam.run.driver import make_plan, run

Nothing is imported here, so that `scenebeam.request` stays light.
"""
