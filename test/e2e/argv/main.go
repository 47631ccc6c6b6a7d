// Command argv prints what it was run with, a line for each thing: arguments, directory, user, GREETING.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
)

// longest is the length up to which a word is printed as it is.
const longest = 200

func main() {
	for i, word := range os.Args {
		if len(word) > longest {
			word = fmt.Sprintf("%d bytes, sha256 %x", len(word), sha256.Sum256([]byte(word)))
		}
		fmt.Printf("%d %q\n", i, word)
	}
	directory, _ := os.Getwd()
	fmt.Printf("in %s as %d:%d, GREETING=%q\n", directory, os.Getuid(), os.Getgid(), os.Getenv("GREETING"))
}
