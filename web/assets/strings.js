// All words of the page, in one place, for changes and translations. What follows "export default" is JSON, since Python
// reads it, too (core/strings.py). {name} is filled in.
export default {
  "file_drop": {
    "uploading": "Uploading",
    "checking": "Checking the file"
  }
};
