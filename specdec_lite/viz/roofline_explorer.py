"""A widget for the roofline: model, precision, device, batch, context and K move three dots and one curve."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import TYPE_CHECKING, Any

from ..bench.data_sheets import DEVICES, LLAMAS
from ..bench.headroom import MOST, batched, cost, free_k, held
from ..bench.roofline_model import Ceiling, Shape, Work
from .explorer import Explorer
from .theme import BLUE, GREEN, GREY, INK, PAPER, VERMILLION, template, uid

if TYPE_CHECKING:
    import plotly.graph_objects as go

PRECISIONS = {"float32": 32, "bfloat16": 16, "8-bit weights": 8, "4-bit weights": 4}  # bits a weight
BATCHES = tuple(2**i for i in range(11))
CONTEXTS = tuple(2**i for i in range(7, 18))
MOST_K = 16
LOOKS = {"one step": (BLUE, "circle"), "verify": (VERMILLION, "diamond"), "prefill": (GREEN, "square")}
SPAN = (0.1, 30_000.0)  # operations a byte that are shown
HERE = "this machine, measured"


class RooflineExplorer(Explorer):
    """Controls for what a pass is, and for what it runs on.

    What a hand can move, code can too: `explorer.move(batch=64, k=8, device="A100 80GB SXM")`.
    `explorer.text` is what the readout says. Data sheets are ceilings, so times are the least possible; what the
    device's memory cannot hold is computed all the same and marked.

    Args:
        here: ceilings of this machine as measured, to choose beside the data sheets; they serve every precision.
        models: shapes to choose beside the Llamas, as counted from a model that is there; their precision is fixed.
    """

    def __init__(self, here: Ceiling | None = None, models: dict[str, Shape] | None = None) -> None:
        self.here, self.extra = here, models or {}
        self.devices = [*DEVICES, *([HERE] if here else [])]
        self.models = [*self.extra, *LLAMAS]
        self.state = dict(device="H100 SXM", model="Llama 8B", precision="bfloat16", batch=1, context=1024, k=4)
        self.open()

    def choices(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return dict(
            device=self.devices, model=self.models, precision=list(PRECISIONS), batch=BATCHES, context=CONTEXTS,
            k=range(MOST_K + 1),
        )  # fmt: skip

    # Numbers

    @property
    def shape(self) -> Shape:
        if self.state["model"] in self.extra:
            return self.extra[self.state["model"]]
        return LLAMAS[self.state["model"]].shape(PRECISIONS[self.state["precision"]])

    @property
    def ceiling(self) -> Ceiling:
        """Of the device, in the precision in which it multiplies."""
        if self.state["device"] == HERE:
            return self.here
        device = DEVICES[self.state["device"]]
        return Ceiling(1e9 * device.bandwidth_gb_s, 1e12 * device.tflops[self.multiplies])

    @property
    def multiplies(self) -> str:
        """The precision of the arithmetic: short weights are unpacked to 16 bits first, where the device has those."""
        if self.state["device"] == HERE or self.state["precision"] == "float32":
            return "float32"
        tflops = DEVICES[self.state["device"]].tflops
        return next(name for name in ("bfloat16", "float16", "float32") if name in tflops)

    @property
    def works(self) -> dict[str, Work]:
        """A decoding step and a verification of the whole batch, and the prefill of one text."""
        batch, context, k = (self.state[name] for name in ("batch", "context", "k"))
        return {
            "one step": batched(self.shape, batch, 1, context),
            "verify": batched(self.shape, batch, k + 1, context),
            "prefill": self.shape.work(context, 0),
        }

    def cost(self, k: int) -> float:
        """Verifying k guesses, in decoding steps."""
        return cost(self.ceiling, self.shape, self.state["batch"], k, self.state["context"])

    @property
    def missing(self) -> str:
        """What does not fit and into how much memory, "" where all of it does."""
        needs = held(self.shape, self.state["batch"], self.state["context"])
        if self.state["device"] == HERE or needs <= 1e9 * (room := DEVICES[self.state["device"]].memory_gb):
            return ""
        return f"It does not fit: {amount(needs)} of weights and cache, {room:g} GB of memory."

    @property
    def text(self) -> str:
        """The readout."""
        ceiling, works = self.ceiling, self.works
        batch, context, k = (self.state[name] for name in ("batch", "context", "k"))
        step, verify = works["one step"], works["verify"]
        free = free_k(ceiling, self.shape, batch, context)
        texts = f"{batch} texts" if batch > 1 else "1 text"
        lines = [
            f"{self.state['model']} on {self.state['device']}, {texts} of {context:,} tokens; "
            f"the ridge is at {short(ceiling.ridge)} operations a byte.",
            f"A decoding step moves {amount(step.bytes)} and does {number(step.flops)} operations, "
            f"{short(step.intensity)} a byte.",
            f"It takes at least {clock(ceiling.seconds(step))} and waits for {ceiling.waits_for(step)}; "
            f"it uses {step.flops / ceiling.throughput / ceiling.seconds(step):.1%} of the arithmetic.",
            f"Verifying K = {k} takes {self.cost(k):.2f} steps ({short(verify.intensity)} operations a byte). "
            + (f"As good as free (within 5 %) up to K = {free}." if 0 < free < MOST else
               "No guess is free here." if free == 0 else "Free for any K."),
        ]  # fmt: skip
        return "\n".join([*lines, *filter(None, [self.missing])])

    # Pictures

    def parts(self) -> dict[str, Any]:
        """Data and labels of the figure, as plain lists."""
        ceiling, works, k = self.ceiling, self.works, self.state["k"]
        roof_x = [SPAN[0], min(max(ceiling.ridge, SPAN[0]), SPAN[1]), SPAN[1]]
        roof_y = [_tera(min(ceiling.bandwidth * x, ceiling.throughput)) for x in roof_x]
        ks = list(range(MOST_K + 1))
        return {
            "x": [
                _round(roof_x),
                [_sig(ceiling.ridge)] * 2,
                *([_sig(work.intensity)] for work in works.values()),
                ks, ks, [k],
            ],
            "y": [
                roof_y,
                [_tera(ceiling.throughput), 1e-4],
                *([_tera(work.flops / ceiling.seconds(work))] for work in works.values()),
                _round([self.cost(each) for each in ks]), [each + 1 for each in ks], [_sig(self.cost(k))],
            ],
            "labels": [
                f"ridge {short(ceiling.ridge)}",
                f"K = {k}: {self.cost(k):.2f} steps" + "<br>✗ does not fit" * bool(self.missing),
            ],
            "at": [
                dict(x=log10(ceiling.ridge), y=log10(_tera(ceiling.throughput))),
                dict(x=k, y=min(self.cost(k), 9.0), xanchor="left" if k < 3 else "right" if k > 13 else "center"),
            ],
        }  # fmt: skip

    def figure(self) -> go.Figure:
        """The picture as it stands now, without controls."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        titles = ("Under the roof of the device", "What verification costs, in decoding steps")
        figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.1)
        parts = self.parts()
        for i, (trace, x, y) in enumerate(zip(_traces(), parts["x"], parts["y"], strict=True)):
            figure.add_trace(go.Scatter(x=x, y=y, **trace), row=1, col=1 if i < 5 else 2)
        figure.update_annotations(font_size=13)
        sides = [dict(xref="x", yref="y", ax=0, ay=-18), dict(xref="x2", yref="y2", ax=0, ay=20)]
        for text, at, side in zip(parts["labels"], parts["at"], sides, strict=True):
            figure.add_annotation(
                text=text, **at, **side, showarrow=True, arrowhead=0, arrowcolor=GREY, bgcolor=PAPER,
                font=dict(size=12, color=INK),
            )  # fmt: skip
        log = dict(type="log", dtick=1, exponentformat="power", tickfont=dict(size=11))
        figure.update_xaxes(log | dict(title="operations a byte", range=[log10(each) for each in SPAN]), col=1)
        figure.update_yaxes(log | dict(title="10¹² operations a second", range=[-3, 4]), col=1)
        figure.update_xaxes(title="K, tokens drafted", dtick=4, range=[-0.7, MOST_K + 0.7], col=2)
        figure.update_yaxes(range=[-0.5, 9], dtick=1, col=2)
        figure.update_layout(
            template=template(), height=430, margin=dict(t=44, b=112, l=62, r=16),
            legend=dict(y=-0.22, entrywidth=185), meta=dict(alt=self.text),
        )  # fmt: skip
        return figure

    def make_controls(self, w: Any) -> dict[str, Any]:
        look = dict(style=dict(description_width="76px"), layout=w.Layout(width="400px"))
        now, choices = self.state, self.choices(self.state)
        lists = {
            name: w.Dropdown(options=choices[name], value=now[name], description=name, **look)
            for name in ("device", "model", "precision")
        }
        sliders = {
            name: w.SelectionSlider(
                options=[(f"{value:,}", value) for value in choices[name]], value=now[name], description=name, **look
            )
            for name in ("batch", "context")
        }
        return lists | sliders | dict(k=w.IntSlider(now["k"], 0, MOST_K, description="K", **look))

    def arrange(self, w: Any) -> list[Any]:
        every = list(self.controls.values())
        return [w.HBox([w.VBox(every[:3]), w.VBox(every[3:])])]

    def redraw(self) -> None:
        parts = self.parts()
        with self.plot.batch_update():
            for trace, x, y in zip(self.plot.data, parts["x"], parts["y"], strict=True):
                trace.x, trace.y = x, y
            labels = self.plot.layout.annotations[-2:]  # the first two are the titles
            for label, text, at in zip(labels, parts["labels"], parts["at"], strict=True):
                label.update(text=text, **at)


def _traces() -> list[dict[str, Any]]:
    """How each trace looks; all but the data."""
    line = dict(mode="lines", hoverinfo="skip")
    made = [
        line | dict(name="what the device gives", line=dict(color=INK, width=2.5)),
        line | dict(name="the ridge", line=dict(color=GREY, width=1.5, dash="dot")),
    ]
    names = {"one step": "one decoding step", "verify": "verification of K guesses", "prefill": "prefill of one text"}
    for name, (colour, symbol) in LOOKS.items():
        marker = dict(color=colour, symbol=symbol, size=13, line=dict(color=PAPER, width=1))
        made.append(dict(name=names[name], mode="markers", marker=marker, hovertemplate="%{x:.3g} a byte, %{y:.3g}"))
    made.append(
        dict(name="verification, in steps", mode="lines", line=dict(color=VERMILLION, width=2.5),
             hovertemplate="K = %{x}: %{y:.2f} steps")
    )  # fmt: skip
    made.append(line | dict(name="as many steps as tokens", line=dict(color=GREY, width=1.5, dash="dash")))
    marker = dict(color=VERMILLION, symbol="diamond", size=13, line=dict(color=PAPER, width=1))
    made.append(dict(name="K", mode="markers", marker=marker, showlegend=False, hoverinfo="skip"))
    return [each | dict(uid=uid("explorer", each["name"])) for each in made]


def short(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def amount(count: float) -> str:
    """Bytes, as people say them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{short(count / size)} {unit}"
    return f"{short(count / 1e3)} kB"


def number(count: float) -> str:
    """A large count, in words."""
    for word, size in (("trillion", 1e12), ("billion", 1e9)):
        if count >= size:
            return f"{short(count / size)} {word}"
    return f"{short(count / 1e6)} million"


def clock(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{short(seconds / size)} {unit}"
    return f"{short(seconds / 1e-6)} µs"


def _sig(value: float) -> float:
    return float(f"{value:.5g}")


def _round(values: list[float]) -> list[float]:
    return [_sig(each) for each in values]


def _tera(value: float) -> float:
    return _sig(value / 1e12)
