"""Tells the size and SHA-256 of a file that was uploaded: curl -F file=@photo.jpg http://localhost:8000/demo/upload"""

import hashlib


def handle(params, context):
    upload = params[0]
    digest = hashlib.sha256()
    with open(upload["path"], "rb") as file:  # it is gone when this task is over
        while chunk := file.read(65536):
            digest.update(chunk)
    return {
        "name": upload["name"],
        "size": upload["size"],
        "sha256": digest.hexdigest(),
        "metadata": upload["metadata"],
    }
