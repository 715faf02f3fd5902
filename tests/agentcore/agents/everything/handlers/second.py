def handle():
    return "handler"
