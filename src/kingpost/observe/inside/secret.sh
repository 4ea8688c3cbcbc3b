# Tell the shape of one secret's file: $1 its path, further arguments the variables that it should hold.
# Prints facts only: never the value, its length, or a name that is not asked for.
file=$1
shift
if [ ! -f "$file" ]; then echo missing; exit 0; fi
stat -L -c 'access %U:%G %a' -- "$file"
if [ ! -r "$file" ]; then echo 'it may not be read' >&2; exit 1; fi
count() { tr -d '\n' | wc -c | tr -d ' '; }
if [ ! -s "$file" ]; then echo empty; fi
if [ "$(tr -cd '\r' <"$file" | wc -c)" -gt 0 ]; then echo carriage-returns; fi
if [ "$(head -c 3 "$file" | od -An -tx1 | tr -d ' \n')" = efbbbf ]; then echo byte-order-mark; fi
if [ "$(tail -c 1 "$file" | od -An -tx1 | tr -d ' \n')" = 0a ]; then echo final-newline; fi
if [ "$(tr -cd '\n' <"$file" | wc -c)" -gt 1 ]; then echo several-newlines; fi
if [ -n "$(tail -n 1 "$file" | tr -d '\n')" ] && [ "$(tail -c 1 "$file" | od -An -tx1 | tr -d ' \n')" != 0a ] \
  && [ "$(tr -cd '\n' <"$file" | wc -c)" -gt 0 ]; then echo several-lines; fi
if [ "$(tr -d 'A-Za-z0-9._~+/=\n\r-' <"$file" | count)" -gt 0 ]; then echo odd-characters; fi
if grep -Eq '^(export +)?[A-Z_][A-Z0-9_]*=[^=]' "$file"; then echo assignments; fi
if grep -v '^ *[#;]' "$file" | grep -v '^ *$' | grep -Eqv '^ *(export +)?[A-Za-z_][A-Za-z0-9_]*='; then
  echo other-lines
fi
for name in "$@"; do
  if grep -Eq "^ *(export +)?$name=[\"']?[^\"' ]" "$file"; then echo "variable $name"; fi
  if grep -Eq "^ *(export +)?$name +=|^ *(export +)?$name= " "$file"; then echo "blanks $name"; fi
done
exit 0
