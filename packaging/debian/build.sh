#!/bin/sh
# `make packages`: the Debian packages usance-agent, usance-coordinator and usance, each with an environment of its own
# that uses the system's Python and changes nothing of it. The same tree gives the same bytes.
#   PYTHON    the system's interpreter that they are for (default: /usr/bin/python3)
#   TOOLS     the environment that has pip and build (default: .venv)
#   VERSION   instead of pyproject.toml's; COMPRESS  what dpkg-deb is told of compression
set -eu
cd "$(dirname "$0")/../.."
OUT=$(realpath -m "${1:-dist}")
PYTHON=${PYTHON:-/usr/bin/python3}
TOOLS=${TOOLS:-.venv}
COMPRESS=${COMPRESS:--Zxz -z2 --threads-max=1}
VERSION=${VERSION:-$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
ARCH=$(dpkg --print-architecture)
MINOR=$($PYTHON -c 'import sys; print("%d.%d" % sys.version_info[:2])')
HERE=packaging/debian
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 LC_ALL=C.UTF-8 TZ=UTC
umask 022
mkdir -p "$OUT"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# The environment of one program: libraries by their pins, and of ours what it consists of.
environment() {
    package=$1 pins=$2 program=$3 home=$work/$1/usr/lib/$1
    mkdir -p "$home/bin" "$home/lib/python$MINOR/site-packages" "$work/$package/usr/bin"
    ln -s "/usr/bin/python$MINOR" "$home/bin/python3"
    printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$MINOR" >"$home/pyvenv.cfg"
    site=$home/lib/python$MINOR/site-packages
    pip="$TOOLS/bin/python -m pip --quiet --disable-pip-version-check --python $home/bin/python3 install"
    $pip --no-compile --require-hashes --requirement "requirements/$pins.txt"
    $pip --no-compile --no-deps "$wheel"
    # Names and digests of files under a path that was ours for a moment, and commands of the libraries.
    find "$site" '(' -name RECORD -o -name direct_url.json -o -name INSTALLER -o -name REQUESTED ')' -delete
    find "$home/bin" -type f -delete
    find "$site" -type f -exec chmod 644 '{}' +
    for part in agent cli coordinator ledger; do
        [ "$part" = "$program" ] || [ "$program $part" = "coordinator ledger" ] || rm -r "${site:?}/$part"
    done
    printf '#!%s -I\nimport sys\nfrom %s.__main__ import main\nsys.exit(main())\n' \
        "/usr/lib/$package/bin/python3" "$program" >"$home/bin/$package"
    chmod 755 "$home/bin/$package"
    ln -s "../lib/$package/bin/$package" "$work/$package/usr/bin/$package"
    # Compiled here, and never looked at again: nothing is written beside them on the machine.
    "$home/bin/python3" -m compileall -q -s "$work/$package" --invalidation-mode unchecked-hash "$site"
}

# What the libraries that wheels bring were built against.
libc_least() {
    find "$work/$1" -path '*.dist-info/WHEEL' -exec sed -n 's/^Tag: .*manylinux_\([0-9]*_[0-9]*\)_.*/\1/p' '{}' + |
        tr _ . | sort -V | tail -n 1
}

finish() {
    package=$1 root=$work/$1
    docs=$root/usr/share/doc/$package
    mkdir -p "$docs" "$root/DEBIAN"
    sed "s/@PACKAGE@/$package/" $HERE/copyright >"$docs/copyright"
    mkdir -p "$root/usr/share/lintian/overrides"
    sed "s/@PACKAGE@/$package/" $HERE/lintian-overrides >"$root/usr/share/lintian/overrides/$package"
    {
        printf '%s (%s) stable; urgency=medium\n\n  * What changed is in NEWS.gz.\n\n' "$package" "$VERSION"
        printf ' -- %s  %s\n' "$(sed -n 's/^Maintainer: //p' "$HERE/$2/control")" "$(date -uRd "@$SOURCE_DATE_EPOCH")"
    } | gzip -9n >"$docs/changelog.gz"
    gzip -9nc CHANGELOG.md >"$docs/NEWS.gz"
    chmod -R u+rwX,go+rX,go-w "$root"
    # It may come to hold a password of the database's.
    [ ! -e "$root/etc/usance/coordinator.toml" ] || chmod 640 "$root/etc/usance/coordinator.toml"
    for script in postinst prerm postrm; do
        [ ! -e "$HERE/$2/$script" ] || install -m 755 "$HERE/$2/$script" "$root/DEBIAN/$script"
    done
    [ ! -e "$root/etc" ] || (cd "$root" && find etc -type f -printf '/%p\n') >"$root/DEBIAN/conffiles"
    sed -e "s/@VERSION@/$VERSION/; s/@ARCH@/$ARCH/; s/@MINOR@/$MINOR/; s/@LIBC@/$(libc_least "$package")/" \
        -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f 1)/" \
        "$HERE/$2/control" >"$root/DEBIAN/control"
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" '{}' +
    # shellcheck disable=SC2086 # several words
    dpkg-deb $COMPRESS --root-owner-group --build "$root" "$OUT/${package}_${VERSION}_$ARCH.deb"
}

manuals() {
    for page in $(cd "$work/made/man" && ls $2); do
        section=$work/$1/usr/share/man/man${page##*.}
        mkdir -p "$section"
        gzip -9nc "$work/made/man/$page" >"$section/$page.gz"
    done
}

completions() {
    share=$work/$1/usr/share
    mkdir -p "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    cp "$work/made/completions/$1.bash" "$share/bash-completion/completions/$1"
    cp "$work/made/completions/$1.zsh" "$share/zsh/vendor-completions/_$1"
    cp "$work/made/completions/$1.fish" "$share/fish/vendor_completions.d/$1.fish"
}

mkdir "$work/tree"
cp -r pyproject.toml README.md LICENSE coordinator agent ledger runtime cli proto "$work/tree"
sed -i "s/^version = .*/version = \"$VERSION\"/" "$work/tree/pyproject.toml"
"$TOOLS/bin/python" -m build --wheel --no-isolation --outdir "$work/wheel" "$work/tree" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
wheel=$(echo "$work"/wheel/*.whl)

"$TOOLS/bin/python" -m tests.docs.manual "$work/made"
environment usance-agent agent agent &
agent=$!
environment usance-coordinator coordinator coordinator
wait $agent
environment usance cli cli

agent=$work/usance-agent
install -Dm 644 -t "$agent/usr/lib/systemd/system" packaging/usance-agent.service
install -Dm 644 -t "$agent/usr/share/usance-agent" packaging/usance-agent-network.conf
install -Dm 644 packaging/usance-agent.tmpfiles "$agent/usr/lib/tmpfiles.d/usance-agent.conf"
mkdir -p "$agent/etc/usance"
"$work/usance-agent/usr/lib/usance-agent/bin/python3" -Im agent settings >"$agent/etc/usance/agent.toml"
manuals usance-agent 'usance-agent*'
completions usance-agent
finish usance-agent agent

coordinator=$work/usance-coordinator
install -Dm 644 -t "$coordinator/usr/lib/systemd/system" packaging/usance-coordinator.service
install -Dm 644 packaging/usance-coordinator.tmpfiles "$coordinator/usr/lib/tmpfiles.d/usance-coordinator.conf"
install -Dm 644 packaging/usance-coordinator.sysusers "$coordinator/usr/lib/sysusers.d/usance-coordinator.conf"
mkdir -p "$coordinator/etc/usance"
"$coordinator/usr/lib/usance-coordinator/bin/python3" -Im coordinator settings >"$coordinator/etc/usance/coordinator.toml"
manuals usance-coordinator 'usance-coordinator*'
completions usance-coordinator
finish usance-coordinator coordinator

manuals usance 'usance.1 usance-*.1'
completions usance
finish usance client
