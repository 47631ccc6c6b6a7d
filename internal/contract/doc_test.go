package contract_test

import (
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sections returns the lists of the package doc by their headings, each item as one line.
func sections(t *testing.T) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	lists, heading := map[string][]string{}, ""
	var parse comment.Parser
	for _, block := range parse.Parse(file.Doc.Text()).Content {
		switch block := block.(type) {
		case *comment.Heading:
			heading = plain(block.Text)
		case *comment.List:
			for _, item := range block.Items {
				for _, paragraph := range item.Content {
					if paragraph, ok := paragraph.(*comment.Paragraph); ok {
						lists[heading] = append(lists[heading], plain(paragraph.Text))
					}
				}
			}
		}
	}
	return lists
}

func plain(text []comment.Text) string {
	var all strings.Builder
	for _, part := range text {
		switch part := part.(type) {
		case comment.Plain:
			all.WriteString(string(part))
		case *comment.Link:
			all.WriteString(plain(part.Text))
		case *comment.DocLink:
			all.WriteString(plain(part.Text))
		}
	}
	return strings.ReplaceAll(all.String(), "\n", " ")
}

// TestGlossary proves that the glossary stays short, explains each term once, and says what the term is not.
func TestGlossary(t *testing.T) {
	const most = 33
	terms := sections(t)["Glossary"]
	if len(terms) == 0 || len(terms) > most {
		t.Errorf("the glossary has %d terms, want 1 to %d", len(terms), most)
	}
	seen := map[string]bool{}
	for _, entry := range terms {
		term, text, ok := strings.Cut(entry, ": ")
		if !ok || !strings.Contains(text, ". Not ") {
			t.Errorf("%q doesn't say what the term is and what it is not", entry)
		}
		if seen[term] {
			t.Errorf("%q is there twice", term)
		}
		seen[term] = true
	}
}

// TestChangeLists proves that each file in the lists of what a change needs exists.
func TestChangeLists(t *testing.T) {
	lists, path := sections(t), regexp.MustCompile(`[\w.-]+(?:/[\w.-]+)+`)
	for _, heading := range []string{"To add a field to a step", "To add an annotation", "To add a reason"} {
		if len(lists[heading]) == 0 {
			t.Errorf("the list %q is missing", heading)
		}
		for _, item := range lists[heading] {
			places, _, _ := strings.Cut(item, ": ")
			files := path.FindAllString(places, -1)
			if len(files) == 0 {
				t.Errorf("%s: %q doesn't begin with a file", heading, item)
			}
			for _, file := range files {
				if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
					t.Errorf("%s: %v", heading, err)
				}
			}
		}
	}
}
