"""What `python app.py` and the installed `spark3r-page` do first: hear signals, before all that takes time to load."""

from viewer.ending import Ending


def run() -> int:
    """Start the page; returns the exit code."""
    ending = Ending()
    ending.listen()
    from viewer import launch  # late: from here on Ctrl-C says nothing

    return launch.run(ending)
