package dynamotest

import "strings"

// A token of an expression. kind is one of: name (bare word), #name, :value, number, symbol, end.
type token struct {
	kind tokenKind
	text string
	at   int // byte offset in the expression
}

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenNameRef  // #x
	tokenValueRef // :x
	tokenNumber
	tokenSymbol
)

// maxExpression is AWS' limit in bytes; it also bounds the parser's recursion.
const maxExpression = 4 << 10

func lex(kind, expression string) ([]token, error) {
	if expression == "" {
		return nil, validation("Invalid %s: The expression can not be empty;", kind)
	}
	if len(expression) > maxExpression {
		return nil, validation("Invalid %s: Expression size has exceeded the maximum allowed size; expression size: %d", kind, len(expression))
	}
	var tokens []token
	for i := 0; i < len(expression); {
		c := expression[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case isWord(c) && !isDigit(c):
			for i < len(expression) && isWord(expression[i]) {
				i++
			}
			tokens = append(tokens, token{tokenName, expression[start:i], start})
		case c == '#' || c == ':':
			for i++; i < len(expression) && isWord(expression[i]); {
				i++
			}
			if i == start+1 {
				return nil, syntaxError(kind, expression, start, i)
			}
			t := tokenNameRef
			if c == ':' {
				t = tokenValueRef
			}
			tokens = append(tokens, token{t, expression[start:i], start})
		case isDigit(c):
			for i < len(expression) && isDigit(expression[i]) {
				i++
			}
			tokens = append(tokens, token{tokenNumber, expression[start:i], start})
		case strings.HasPrefix(expression[i:], "<>"), strings.HasPrefix(expression[i:], "<="), strings.HasPrefix(expression[i:], ">="):
			i += 2
			tokens = append(tokens, token{tokenSymbol, expression[start:i], start})
		case strings.IndexByte("=<>+-,.()[]", c) >= 0:
			i++
			tokens = append(tokens, token{tokenSymbol, expression[start:i], start})
		default:
			return nil, syntaxError(kind, expression, i, i+1)
		}
	}
	return append(tokens, token{tokenEnd, "<EOF>", len(expression)}), nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool {
	return c == '_' || isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// syntaxError names the token between start and end, and what stands around it, as DynamoDB does.
func syntaxError(kind, expression string, start, end int) error {
	text := "<EOF>"
	if start < len(expression) {
		text = expression[start:end]
	}
	near := expression[max(0, start-8):min(len(expression), end+8)]
	return validation("Invalid %s: Syntax error; token: %q, near: %q", kind, text, near)
}
