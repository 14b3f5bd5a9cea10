"""The tab with the laboratory: experiments on why adversarial training fails, and on what helps, each in a tab of its own."""

import adversarial_lab_fit
import adversarial_lab_game
import adversarial_lab_modes
import adversarial_lab_optimum
import adversarial_lab_slide
import gradio as gr


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Laboratory") as tab:
        adversarial_lab_modes.build(tab)
        adversarial_lab_game.build()
        adversarial_lab_optimum.build()
        adversarial_lab_slide.build()
        adversarial_lab_fit.build()
