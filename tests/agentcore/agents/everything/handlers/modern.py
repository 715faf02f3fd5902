def handle(params):
    return "modern"
