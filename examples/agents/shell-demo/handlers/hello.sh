# Greets whoever is named; what is printed as JSON is the result.
name=$(printf '%s' "${1:-World}" | sed 's/[\\"]/\\&/g')
printf '{"message": "Hello %s"}\n' "$name"
