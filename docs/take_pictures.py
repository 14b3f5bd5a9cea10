"""The README's pictures of the Spaces, taken of a gallery that runs.

make demo &
python docs/take_pictures.py http://127.0.0.1:7860
"""

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).parent / "pictures"


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1180, "height": 800})
        page.goto(url)
        page.locator("#tables table").first.wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "gallery.png")

        page.goto(f"{url}/vae")
        page.locator("#samples img").wait_for()
        page.get_by_role("tab", name="Map").click()
        page.locator("#live img").wait_for()
        box = page.locator("#map .explorer").bounding_box()
        page.mouse.click(box["x"] + 0.24 * box["width"], box["y"] + 0.42 * box["height"])
        page.wait_for_timeout(1_500)
        page.screenshot(path=PICTURES / "vae-map.png")

        page.get_by_role("tab", name="How likely").click()
        page.get_by_role("button", name="How likely is it?").click()
        page.get_by_text("1,000 samples").wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "vae-how-likely.png")

        page.goto(f"{url}/diffusion")
        page.get_by_text("of 20, t = 49").wait_for()
        page.get_by_label("number input for Steps").first.fill("100")
        page.get_by_label("number input for Steps").first.press("Enter")
        page.get_by_role("button", name="Draw samples").click()
        page.get_by_text(re.compile(r"step (3[5-9]|[4-7]\d) of 100")).wait_for()
        page.locator("#draw-stop").click()
        page.wait_for_timeout(2_000)
        page.screenshot(path=PICTURES / "diffusion.png")

        page.get_by_role("tab", name="2-D").click()
        page.get_by_text(re.compile(r"step (1[2-9]|2\d) of 40")).wait_for()
        page.locator("#move-stop").click()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "diffusion-2d.png")

        page.goto(f"{url}/adversarial")
        page.locator("#samples img").wait_for()
        page.get_by_role("tab", name="Laboratory").click()
        page.get_by_text("Not trained yet").wait_for()
        page.get_by_label("New seed each time").and_(page.locator(":visible")).first.uncheck()
        page.get_by_role("button", name="Train both").click()
        page.get_by_text("step 600 of 600").wait_for(timeout=120_000)
        page.set_viewport_size({"width": 1180, "height": 1000})
        page.locator("#modes-curve").scroll_into_view_if_needed()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "adversarial.png")
        page.set_viewport_size({"width": 1180, "height": 800})

        page.goto(f"{url}/density")
        page.locator("#map-kernels img").wait_for()
        page.get_by_role("tab", name="Mixture").click()
        page.locator("#map-mixture img").wait_for()
        page.get_by_role("button", name="Run EM").click()
        page.get_by_text("EM has converged").wait_for(timeout=60_000)
        page.wait_for_timeout(1_500)
        page.set_viewport_size({"width": 1180, "height": 1000})
        page.screenshot(path=PICTURES / "density.png")

        page.goto(f"{url}/flows")
        page.get_by_text("after layer 4 of 4").wait_for(timeout=60_000)
        page.get_by_label("number input for Layer").fill("3")
        page.get_by_label("number input for Layer").press("Enter")
        page.get_by_text("after layer 2 of 4").wait_for()
        page.set_viewport_size({"width": 1180, "height": 1000})
        page.wait_for_timeout(2_000)
        page.screenshot(path=PICTURES / "flows-layers.png")
        page.get_by_role("tab", name="Without log |det|").click()
        page.get_by_text("step 300 of 300").wait_for(timeout=120_000)
        page.wait_for_timeout(2_000)
        page.screenshot(path=PICTURES / "flows-training.png")

        page.goto(f"{url}/autoencoders")
        page.get_by_text("Decoded here").wait_for()
        page.wait_for_timeout(6_000)
        page.screenshot(path=PICTURES / "autoencoders.png")
        page.get_by_role("tab", name="Tangents").click()
        page.get_by_text("Tangent 1", exact=True).wait_for()
        page.wait_for_timeout(6_000)
        page.screenshot(path=PICTURES / "autoencoders-tangents.png")
        page.set_viewport_size({"width": 1180, "height": 800})

        page.goto(f"{url}/language-model")
        page.locator("#bars .token-bar").first.wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "language-next.png")
        page.get_by_role("tab", name="How surprising").click()
        page.locator("#colours .tokens").first.wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "language-surprise.png")
        page.get_by_role("tab", name="Tree").click()
        page.locator("#tree-of-tokens svg").wait_for()
        page.set_viewport_size({"width": 1180, "height": 1000})
        page.locator("#tree-of-tokens").scroll_into_view_if_needed()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "language-tree.png")
        page.set_viewport_size({"width": 1180, "height": 800})

        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(f"{url}/vae")
        page.locator("#samples img").wait_for()
        page.get_by_role("tab", name="Reconstruct").click()
        page.locator("#examples button.thumbnail-item").nth(3).click()
        page.locator("#again img").wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURES / "vae-phone.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
