"""The table of commands. A command's file is imported only when the command runs, so that `--help` is quick."""

from __future__ import annotations

from importlib.util import find_spec

from cyclopts import App, Group, Parameter

import lensing
from lensing.cli.show import console

# command: (where it is, what it does)
COMMANDS = {
    "walk": ("lensing.cli.walk:walk", "Walk one sentence through a model, from tokens to what stays dark."),
    "serve": ("lensing.cli.serve:serve", "Show everything in the browser: the walk, each latent, search, steering."),
    "lens": ("lensing.cli.lens:lens", "Read every layer's guess at every position through the logit or a tuned lens."),
    "heads": ("lensing.cli.heads:heads", "Score every attention head: induction, previous token, duplicate token."),
    "attribute": ("lensing.cli.attribute:attribute", "Split the next word's logit over the parts that speak for it."),
    "effects": (
        "lensing.cli.effects:effects",
        "Measure what each latent adds to the next word, the error beside them.",
    ),
    "contrast": (
        "lensing.cli.contrast:contrast",
        "Find what tells two files of documents apart: a difference of means, a probe, latents.",
    ),
    "patch": ("lensing.cli.patch:patch", "Find the activations that carry an answer from one sentence to another."),
    "steer": ("lensing.cli.steer:steer", "Turn one latent up or down and watch the model's words change."),
    "harvest": (
        "lensing.cli.harvest:harvest",
        "Store the activations of a model reading text, to train on and to look at.",
    ),
    "verify": (
        "lensing.cli.verify:verify",
        "Check every file of a store or a dictionary, or the published numbers of the walk on Gemma 2 2B.",
    ),
    "train": ("lensing.cli.train:app", "Train a dictionary on the activations of one site."),
    "sweep": ("lensing.cli.sweep:sweep", "Train a grid of dictionaries from one reader, each as if alone."),
    "run": ("lensing.cli.repeat:run", "Repeat what a run.json recorded: a harvest, a training, a sweep, an index."),
    "finetune": (
        "lensing.cli.finetune:finetune",
        "Fine-tune a dictionary end to end: spliced into its model, it also lowers the splice's cost.",
    ),
    "evaluate": ("lensing.cli.evaluate:evaluate", "Measure how much a dictionary rebuilds, and what its splice costs."),
    "index": ("lensing.cli.index:index", "Find what every latent of a dictionary does on a text."),
    "latent": ("lensing.cli.index:latent", "Show one latent of an index."),
    "ledger": ("lensing.cli.ledger:ledger", "Account for what a dictionary explains and what it leaves dark."),
    "label": ("lensing.cli.label:label", "Ask a language model what latents stand for, and score its answers."),
    "export": ("lensing.cli.exchange:export", "Write an index for Neuronpedia, as Parquet, or as plain pages."),
    "import": ("lensing.cli.exchange:take_in", "Make an index of another tool's dashboards."),
    "convert": ("lensing.cli.convert:convert", "Write a dictionary of one tool in the files of another."),
    "sites": ("lensing.cli.models:sites", "List the sites of a model that can be read and edited."),
    "doctor": ("lensing.cli.models:doctor", "Say what is installed, what is shipped, and whether anything is amiss."),
    "world": ("lensing.cli.world:app", "Look at the invented world that the shipped model learnt."),
}


def build() -> App:
    """Return the application; nothing but the table above is loaded."""
    app = App(
        name="lensing",
        help="Read, steer and account for what a language model represents.",
        version=lensing.__version__,
        default_parameter=Parameter(negative=()),
        group_commands=Group("Commands", sort_key=0),
        group_parameters=Group("Options", sort_key=1),
        exit_on_error=False,
        print_error=False,
        verbose=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        console=console(),
    )
    for place, (name, (where, what)) in enumerate(COMMANDS.items()):
        if find_spec(where.partition(":")[0]) is not None:
            app.command(where, name=name, help=what, sort_key=place)
    return app
