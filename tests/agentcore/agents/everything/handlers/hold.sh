# Works until the file that it is given is removed.
echo >"$1.begun"
while [ -e "$1" ]; do sleep 0.02; done
echo released
