"""Greets whoever is named."""


def handle(params, context):
    name = params[0] if params else "World"
    return {"message": f"Hello {name}"}
