# Greets whoever is named.
name=$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')
printf '{"message": "Hello %s"}' "$name"
