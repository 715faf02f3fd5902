# Runs once for each release, in a throw-away container, before anybody sees it.
set -e
mkdir -p dist
cp pages/* dist/
gzip -c dist/style.css > dist/style.css.gz # sent as it is to whoever accepts it
