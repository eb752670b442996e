"""A function with sliders: drawn once for whoever only reads, redrawn for whoever moves them.

Conventions
    The function takes the sliders' values by name and returns what is to be seen: a figure, (fig, ax), a player, any
    object Jupyter can show, text, or a list of these.
    Sliders act when they are let go, not while they move.

Told in: notebooks/02_crops.ipynb
"""

import inspect

import ipywidgets
from IPython.display import HTML, display
from matplotlib.figure import Figure

from pawlib.show.figures import show


def explore(function, **sliders):
    """Call a function once and give its arguments sliders; the picture below changes with them.

    Parameters
    ----------
    function : callable
        With one argument per slider. It is called at once, with the sliders' first values: an error in it is an error
        of the cell, and a run without anybody watching keeps the picture.
    **sliders
        A widget, or as in ipywidgets: (min, max), (min, max, step), a list of choices, True or False. The first value
        is the argument's default where the function has one.

    Returns
    -------
    Explorer
        Shown when it is the last line of a cell.

    Raises
    ------
    ValueError
        For a slider that is no argument of the function, or one that ipywidgets cannot make.

    Told in: notebooks/02_crops.ipynb
    """
    arguments = inspect.signature(function).parameters
    unknown = [name for name in sliders if name not in arguments]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no argument of the function, which takes {', '.join(arguments)}")
    return Explorer(function, {name: _widget(name, given, arguments[name]) for name, given in sliders.items()})


class Explorer:
    """A function, its widgets, and the outputs they change.

    Attributes
    ----------
    widgets : dict of str to ipywidgets.Widget
    shown : list
        What the function returned last, as it is displayed.
    """

    def __init__(self, function, widgets):
        self.function, self.widgets = function, widgets
        self._handles = []
        self.shown = self._call()
        for widget in widgets.values():
            widget.observe(self._moved, names="value")

    def _call(self):
        result = self.function(**{name: widget.value for name, widget in self.widgets.items()})
        return [_displayable(item) for item in (result if isinstance(result, list) else [result])]

    def _moved(self, _change):
        try:
            shown = self._call()
        except Exception as error:  # a widget's callback has no cell to fail in: say it where the picture was
            shown = [HTML(f"<pre>{type(error).__name__}: {error}</pre>")]
        self.shown = shown
        blank = [HTML("")] * (len(self._handles) - len(shown))
        for handle, item in zip(self._handles, [*shown, *blank], strict=False):
            handle.update(item)

    def _ipython_display_(self):
        display(ipywidgets.VBox(list(self.widgets.values())))
        self._handles = [handle for item in self.shown if (handle := display(item, display_id=True)) is not None]


def _widget(name, given, argument):
    """A widget from ipywidgets' shorthand, acting on release, labelled with the argument's name."""
    if isinstance(given, ipywidgets.Widget):
        widget = given
    else:
        widget = ipywidgets.interactive.widget_from_abbrev(given, argument.default)
    if widget is None or not hasattr(widget, "value"):
        raise ValueError(
            f"{name}={given!r} makes no slider: give (min, max), (min, max, step), a list, True, or a widget"
        )
    if hasattr(widget, "continuous_update"):
        widget.continuous_update = False
    widget.description = widget.description or name.replace("_", " ")
    widget.style.description_width = "110px"
    widget.layout.width = "460px"
    return widget


def _displayable(item):
    """Figures become pictures (and are closed, or the cell would show them twice), text becomes HTML."""
    if isinstance(item, tuple) and item and isinstance(item[0], Figure):
        item = item[0]
    if isinstance(item, Figure):
        return show(item)
    return HTML(f"<pre>{item}</pre>") if isinstance(item, str) else item
