"""The page's own files: markup, look and script; `attention_html` puts them together."""
