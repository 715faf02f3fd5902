"""Greets whoever is named."""


def handle(params, context):
    return {"message": f"Hello {params[0]}"}
