"""`twistd ploinky`."""

from twisted.application.service import ServiceMaker

ploinky = ServiceMaker(
    "Ploinky Cloud",
    "ploinky.tap",
    "Serve agents from Git repositories, in containers, behind one domain and path each.",
    "ploinky",
)
