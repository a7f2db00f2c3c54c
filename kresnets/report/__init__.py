"""The pictures of a run and its page. Not imported by `import kresnets`; matplotlib comes when a picture is drawn."""

from kresnets.report.answers import confusion as confusion
from kresnets.report.answers import mistakes as mistakes
from kresnets.report.answers import worst_mistakes as worst_mistakes
from kresnets.report.gradcam import grad_cam as grad_cam
from kresnets.report.history import curves as curves
from kresnets.report.page import html as html
from kresnets.report.search import search_page as search_page
