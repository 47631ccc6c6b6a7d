#!/usr/bin/env bash
# Checks what has changed, while one works on it: format, vet, and the unit tests, without the race detector, of the packages that changed or that
# depend on one that did. It needs no API server and no root: tests that need root are skipped. A change is what differs from the merge base
# with main, or from the commit in BASE. If nothing does, nothing is checked.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! base=${BASE:-$(git merge-base HEAD main 2>/dev/null || git merge-base HEAD origin/main 2>/dev/null)}; then
	base=HEAD # without a branch main
fi
mapfile -t files < <({
	git diff --name-only "$base" --
	git ls-files --others --exclude-standard
} | sort -u)
if ((${#files[@]} == 0)); then
	echo "quick: nothing differs from $(git rev-parse --short "$base"), so nothing is checked: make unit runs all tests that need no node"
	exit
fi

declare -A changed=() # packages
go_files=() all=false
for file in "${files[@]}"; do
	case $file in
	test/cluster/*) continue ;; # a module of its own: make unit tests it
	go.mod | go.sum) all=true ;;
	*.go) [ ! -e "$file" ] || go_files+=("$file") ;;
	# These packages have tests that read the files.
	config/* | charts/*) changed+=([./hack/crd]='' [./webhook]='' [./controller]='' [./cmd/operator]='' [./test/docs]='') ;;
	docs/* | README*) changed+=([./test/docs]='') ;;
	esac
	# The package of the file, or of the testdata that it is in.
	dir=${file%%/testdata/*}
	[ "$dir" != "$file" ] || dir=$(dirname "$file")
	! compgen -G "$dir/*.go" >/dev/null || changed+=(["./$dir"]='')
done

tags=apiserver,e2e # vet reads these suites, too; their tests don't run
packages=()
if $all; then
	mapfile -t packages < <(go list -tags $tags ./...)
elif ((${#changed[@]} > 0)); then
	# Each line has a package, or the test of one, and all that it imports, directly or not.
	mapfile -t packages < <(go list -test -tags $tags -f '{{or .ForTest .ImportPath}} {{.ImportPath}} {{join .Deps " "}}' ./... |
		awk -v changed="$(go list -tags $tags "${!changed[@]}" | tr '\n' ' ')" '
			BEGIN { n = split(changed, names); for (i = 1; i <= n; i++) isChanged[names[i]] = 1 }
			{ sub(/\.test$/, "", $1); for (i = 1; i <= NF; i++) if ($i in isChanged) { print $1; next } }' | sort -u)
fi

if ((${#go_files[@]} > 0)); then
	unformatted=$(gofmt -l "${go_files[@]}")
	if [ -n "$unformatted" ]; then
		printf 'quick: not formatted, make format does it:\n%s\n' "$unformatted" >&2
		exit 1
	fi
fi
if ((${#packages[@]} == 0)); then
	echo "quick: no Go package depends on the ${#files[@]} changed files"
	exit
fi
echo "quick: ${#packages[@]} packages changed since $(git rev-parse --short "$base"), or depend on what changed"
go vet -tags $tags "${packages[@]}"
# Packages that build images and render the chart take longer: make unit tests them. Most tests wait more than they compute, so more of them run at
# once than there are cores.
mapfile -t tested < <(go list -e -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "${packages[@]}" | grep -vE '/(hack/image|test/chart)$')
((${#tested[@]} == 0)) || go test -timeout 5m -p 4 -parallel 8 "${tested[@]}"
