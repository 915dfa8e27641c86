"""Records to figures, words and a page. Nothing here trains or knows of torch; equal records give an equal report."""
