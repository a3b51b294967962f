"""What the page in the browser needs: its files, quick copies of scans and masks, the list to annotate."""
