// All words of the page, in one place, for changes and translations. What follows "export default" is JSON, since Python
// reads it, too (core/strings.py). {name} is filled in.
export default {
  "http": {
    "401": "Your login has ended (401). Reload the page to log in again.",
    "403": "The server, or a proxy before it, has refused this (403). Its log says why.",
    "413": "This file is too large for the way to this server (413). A proxy may allow less than the server does.",
    "429": "Too much at once from your address (429). Try again in a moment.",
    "502": "The proxy gets no answer from the server (502). It may be restarting.",
    "503": "The server is starting, stopping or busy (503).",
    "504": "The proxy has waited too long for the server (504).",
    "other": "The server, or a proxy before it, has refused this ({status})."
  },
  "frame": {
    "description": "Deep Dream on your camera, videos and pictures",
    "skip": "Skip to the content",
    "tabs": "Pages",
    "dark": "Dark theme",
    "log_in": "Log in",
    "log_out": "Log out",
    "no_script": "This page needs JavaScript.",
    "not_loaded": "This part of the page could not be loaded. Reload the page."
  },
  "tabs": {
    "live": "Live",
    "video": "Video",
    "picture": "Picture",
    "dreams": "Dreams",
    "layers": "Layers"
  },
  "video": {
    "drop": "Drop a video here or choose one",
    "note": "{kinds}, up to {size} MB and {time}",
    "preview": "Preview",
    "start": "Start",
    "missing": "choose a video first"
  },
  "picture": {
    "drop": "Drop a picture here or choose one",
    "note": "{kinds}, up to {size} megapixels",
    "start": "Start",
    "missing": "choose a picture first"
  },
  "login": {
    "title": "Log in - streamdream",
    "failed": "Error: Log in - streamdream",
    "user": "User name",
    "password": "Password",
    "token": "Token",
    "wrong_user": "Wrong user name or password.",
    "wrong_token": "Wrong token."
  },
  "terms": {
    "title": "Terms of use",
    "agree": "I agree"
  },
  "file_drop": {
    "hint": "Drop it here, paste it, or choose it",
    "uploading": "Uploading",
    "percent": "Uploading: {percent} %",
    "progress": "Upload",
    "checking": "Checking the file",
    "waiting": "{reason} The upload goes on by itself.",
    "retry": "Try again",
    "remove": "Remove",
    "ready": "{name} is ready: {facts}",
    "with_sound": "{size}, {time}, with sound",
    "without_sound": "{size}, {time}, without sound",
    "unplayable": "This browser cannot show it; the dream will be an MP4.",
    "too_large": "This file is too large ({size} MB; the limit is {limit} MB).",
    "unfinished": "Only {percent} % of {name} were uploaded. Choose it again to go on.",
    "is_picture": "This is a picture. The tab Picture dreams it.",
    "to_picture": "Open it in the tab Picture",
    "is_video": "This is a video. The tab Video dreams it.",
    "to_video": "Open it in the tab Video",
    "still_uploading": "the file is still being uploaded; start when it is here",
    "no_span": "the end must be after the start",
    "choose_again": "choose the file again",
    "start": "Start",
    "end": "End",
    "draw": "Draw where to dream",
    "brush": "Brush",
    "brush_size": "Brush size",
    "erase": "Erase",
    "clear_drawing": "Clear drawing"
  },
  "upload": {
    "lost": "There is no connection to the server.",
    "failed": "The server answered {status}.",
    "busy": "too many files are being uploaded; try again in a moment",
    "too_large": "this file is too large ({size} MB; the limit is {limit} MB)",
    "grows_too_large": "this file is too large (the limit is {limit} MB)",
    "larger_than_said": "this file is larger than was said before",
    "wrong_offset": "this file goes on at byte {offset}",
    "too_slow": "the upload is too slow",
    "broke_off": "the upload broke off",
    "empty": "this file is empty",
    "gone": "that file is not here any more; choose it again"
  },
  "inspection": {
    "exhausting": "reading this file exceeds the time or memory limit; it may be damaged",
    "other_type": "files of this type are not accepted; videos: {videos}, pictures: {pictures}",
    "no_heic": "this server reads no HEIC pictures; save it as a JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)",
    "no_picture": "this file is not a picture that can be read",
    "animated": "this picture is animated; the tab Video accepts it as a GIF, an MP4 or a WebM",
    "streams": "this video has {count} streams; the maximum is {most}",
    "only_sound": "this file holds no video, only sound",
    "no_decodable_video": "this file holds no video that can be decoded",
    "no_video": "this file holds no video",
    "video_codec": "the video codec {codec} is not accepted; H.264 in an MP4 is",
    "sound_codec": "the sound codec {codec} is not accepted; AAC is",
    "damaged": "this video is damaged",
    "not_a_video": "this file is damaged, or not a video",
    "frames": "this video has too many frames; the maximum is {rate} per second for {seconds} s",
    "too_long": "this video is longer than {length}; cut it first",
    "no_size": "the size of the picture is unknown; the file may be damaged",
    "pixels": "{width} x {height} pixels are too many; the maximum is {most} million"
  },
  "examples": {
    "title": "No file at hand? Try one of these",
    "meadow": "Meadow, with sound",
    "valley": "Valley",
    "earth": "Earth at night",
    "pavilion": "Pavilion",
    "dahlia": "Dahlia",
    "cat": "Cat"
  },
  "live": {
    "region": "Live dream",
    "camera_label": "Your camera with Deep Dream",
    "video_label": "A video with Deep Dream",
    "split": "Compare: original and dream",
    "split_value": "{percent} % original",
    "figures": "Performance",
    "fps": "Frames shown per second",
    "latency": "Median latency from camera to screen",
    "dreams": "Dreams computed per second",
    "recorded": "Length of the recording",
    "title": "Deep Dream on your camera",
    "about": "A neural network paints what it recognises into your camera picture. Frames go to this server and back; nothing is stored.",
    "start": "Start the camera",
    "clip": "Try it with an example clip",
    "own": "Use a video of mine",
    "own_title": "Play a video file of yours in the place of the camera. It is not uploaded: its frames go to this server and back, as those of a camera.",
    "leave": "Leave the queue",
    "again": "You can start again at any time.",
    "stopped": "Stopped",
    "unplayable": "This browser cannot play this video. Choose another one, for example an MP4 with H.264.",
    "queued": "You are in the queue",
    "places": "All {count} places are taken.",
    "only_place": "The only place is taken.",
    "next": "You are next.",
    "person_ahead": "1 person is ahead of you.",
    "people_ahead": "{count} people are ahead of you.",
    "wait_minute": "It starts automatically, within a minute.",
    "wait_minutes": "It starts automatically, in {count} minutes at the latest.",
    "restart": "The server is restarting. You will be reconnected in a moment.",
    "lost": "Connection lost. Reconnecting…",
    "lost_long": "No connection for {time}. The dream and its settings come back with it.",
    "seconds": "{count} seconds",
    "minutes": "{count} min",
    "offline": "This device is offline. The dream comes back with the network.",
    "back": "Connected again.",
    "refused": "The server refused the connection",
    "full": "The queue is full. Please try again later.",
    "ended": "The session has ended",
    "idle": "Paused: no camera frames have arrived for a while.",
    "time": "Your time is up because others are waiting. Start again to join the queue.",
    "elsewhere": "This session continues in another window.",
    "blocked": "This page needs a WebSocket, and none could be opened. A proxy or firewall may block it, or the server is down.",
    "hint": "Hold still, or press Freeze: a look needs a second in one place.",
    "lines": "{count} lines"
  },
  "bar": {
    "stop": "Stop",
    "stop_title": "Stop the live dream",
    "freeze": "Freeze",
    "freeze_title": "Freeze the picture while the dream continues (Z)",
    "reset": "Reset",
    "reset_title": "Begin the dream anew (X)",
    "mirror": "Mirror",
    "mirror_title": "Mirror the picture (M)",
    "compare": "Compare",
    "compare_title": "Compare with the original (C)",
    "snapshot": "Snapshot",
    "snapshot_title": "Save this moment as a picture (S)",
    "record": "Record",
    "record_title": "Record a video in this browser (R)",
    "sound": "Sound",
    "sound_title": "Record with the sound of the microphone",
    "fullscreen": "Fullscreen",
    "fullscreen_title": "Fullscreen (F)"
  },
  "camera": {
    "NotAllowedError": "Camera access was denied. Allow it in the browser's address bar, then start again.",
    "NotFoundError": "No camera was found.",
    "OverconstrainedError": "This camera is no longer connected. Choose another one.",
    "NotReadableError": "Another program is using the camera.",
    "failed": "The camera cannot be opened: {reason}",
    "unsupported": "This browser does not support cameras.",
    "insecure": "Browsers allow a camera only on https or localhost. The server's owner can start it with a certificate.",
    "kept": "{reason} The camera stays as it was.",
    "muted": "The camera sends no picture: it is covered, switched off or used by a call.",
    "stopped": "The camera has stopped. Trying to open it again…",
    "back": "The camera is back.",
    "other": "The camera has stopped. {name} is used now.",
    "connected": "{name} is connected: choose it under Camera.",
    "disconnected": "{name} is disconnected.",
    "unnamed": "Camera {number}"
  },
  "recorder": {
    "unsupported": "This browser cannot record video.",
    "NotAllowedError": "The microphone is not allowed: this is recorded without sound.",
    "silent": "No microphone can be opened: this is recorded without sound.",
    "lost": "The microphone has stopped: the recording goes on without sound."
  },
  "share": {
    "saved": "Saved {name}",
    "share": "Share…",
    "failed": "Sharing did not work."
  },
  "link_code": {
    "title": "The link as a QR code",
    "scan": "Scan this code with a phone to open the same dream there.",
    "local": "This address works on this computer only: start the server with --host for others.",
    "long": "The link is too long for a QR code.",
    "close": "Close"
  },
  "dreams": {
    "idle_video": "Set the start and the end, preview three frames, then start. Sound and timing stay the same.",
    "idle_picture": "Draw on the picture to dream only there. You can add a guide or a style picture in the settings.",
    "none": "Your dreamed videos and pictures will be listed here, also after a reload, and while they run.",
    "kept": "Dreams are kept for {hours} hours. Share a dream by its link; delete it when you have downloaded it.",
    "kept_minutes": "Dreams are kept for half an hour, and no longer than the server runs.",
    "gone": "The dream of this link is no longer on this server.",
    "lost": "No answer from the server. What runs there goes on, and this page asks again by itself.",
    "login": "You have been logged out. Reload the page to log in again.",
    "done": "Done",
    "next": "Next in the queue.",
    "ahead": "{count} ahead of you.",
    "begins": "Begins in {time}.",
    "loading": "Loading",
    "of_video": "{done} of {total} frames",
    "of_picture": "{done} of {total} steps",
    "left": "{time} left",
    "spare": "stops in {time} because others are waiting",
    "under_a_minute": "less than a minute",
    "a_minute": "about a minute",
    "minutes": "about {minutes} minutes",
    "preview": "The latest frame of {name}",
    "download": "Download",
    "open": "Open",
    "compare": "Side by side",
    "single": "Dream only",
    "use": "Use these settings",
    "share": "Share link",
    "copied": "Link copied",
    "cancel": "Cancel",
    "delete": "Delete",
    "unlist": "Take off this list",
    "confirm": "Delete the dream of {name}?"
  },
  "compare": {
    "original": "Original",
    "dream": "Dream",
    "slider": "Compare: original and dream",
    "unplayable": "This browser cannot play the original."
  },
  "panel": {
    "title": "Settings",
    "intensity": "Intensity",
    "intensity_help": "How strong the dream is, from the picture alone to a wild dream. In the middle are the look's own values.",
    "intensity_technical": "scales {names}",
    "undo": "Undo",
    "undo_title": "Undo (Ctrl+Z)",
    "redo": "Redo",
    "redo_title": "Redo (Ctrl+Shift+Z)",
    "slots": "Two settings to switch between",
    "slot_title": "Two settings to switch between: what you change applies to the pressed one",
    "defaults": "Defaults",
    "copy": "Copy link",
    "copied": "Copied",
    "not_copied": "The link is in the address bar",
    "from_live": "Dream this with what Live shows",
    "no_live": "The tab Live has not been opened on this page.",
    "from_live_done": "The settings of Live are used here now.",
    "layer": "Layer",
    "layer_hint": "+ Mix or Shift for several",
    "layer_channels": "{layer}: {words}; {count} channels",
    "channels": "Find single things to dream",
    "channels_hint": "feathers, eyes, roses…: pictures of all channels",
    "more": "More settings",
    "preset": "Preset",
    "preset_help": "Initial values for special purposes, such as those of Google's notebook of 2015.",
    "no_preset": "None",
    "help": "What {name} does",
    "camera": "Camera",
    "camera_default": "Default",
    "camera_size": "Size",
    "network_missing": "The network {name} is not installed on this server.",
    "too_high": "{name} is {value}, but here at most {most}",
    "guide_style": "Guide and style",
    "guide": "Guide: dream toward the content of this picture",
    "style": "Style: dream in the style of this picture",
    "missing": "The weights of {name} are not installed. The server's owner can install them with {command}."
  },
  "settings": {
    "model": {
      "label": "Network",
      "help": "The neural network that dreams. Each one has learned from other pictures, and dreams what it has seen."
    },
    "layers": {
      "label": "Layers",
      "help": "What to dream, as text: layers with weights and channels, such as mixed3:1,mixed5[33,220]:0.5."
    },
    "channel": {
      "label": "Only these channels",
      "help": "Numbers of the channels of whole layers, such as 3,17; empty for all. It is easier to find them by picture."
    },
    "style_weight": {
      "label": "How much of the style picture",
      "help": "How much the style counts beside the layers, which count 1."
    },
    "style_layers": {
      "label": "Where the style is read",
      "help": "Layers that see the style, such as mixed0,mixed2; empty for one of each size."
    },
    "original_colors": {
      "label": "Keep the picture's colours",
      "help": "The dream changes only light and dark; all colours stay those of the picture."
    },
    "tv": {
      "label": "Less grain",
      "help": "Takes fine specks out of the dream (total variation penalty)."
    },
    "l2": {
      "label": "Toward grey",
      "help": "Pulls what glares back toward grey (L2 penalty)."
    },
    "strength": {
      "label": "How much of the dream shows",
      "help": "0 shows the picture alone, 1 the dream as it is; more exaggerates it."
    },
    "steps": {
      "label": "How far shapes grow",
      "help": "Steps of painting at each size. More make clearer shapes, and take longer."
    },
    "step_size": {
      "label": "Boldness of the strokes",
      "help": "The length of a step: longer ones paint faster and coarser."
    },
    "octaves": {
      "label": "Size of the shapes",
      "help": "How many sizes of shapes are painted. Each one more adds larger shapes."
    },
    "octave_scale": {
      "label": "Leap between the sizes",
      "help": "How much larger each size of shapes is than the one below."
    },
    "jitter": {
      "label": "Random shift",
      "help": "How far the picture is moved at random before each step. Little of it leaves a grid and pale borders."
    },
    "smooth": {
      "label": "Softness",
      "help": "0 paints fine grain, more paints broad soft shapes."
    },
    "color": {
      "label": "Colour of the dream",
      "help": "0 paints in grey, 1 in full colour."
    },
    "palette": {
      "label": "Natural colours",
      "help": "How far colours are those of photographs; 0 leaves the glowing ones of the network."
    },
    "equalize": {
      "label": "Fine and coarse alike",
      "help": "Gives fine and coarse detail equal strength."
    },
    "legibility": {
      "label": "How readable the picture stays",
      "help": "The dream leaves calm parts alone and moves to where the picture is busy."
    },
    "consistency": {
      "label": "Calmness",
      "help": "0 lets the dream boil, 1 keeps its shapes where they are."
    },
    "keep": {
      "label": "How long it stays",
      "help": "How much of the dream the next frame keeps. Little flickers, much builds up."
    },
    "regrowth": {
      "label": "How fast it grows back",
      "help": "How much stronger it paints where motion, a cut or another look has cleared the dream; 1 for no more than elsewhere."
    },
    "warmup_steps": {
      "label": "Head start",
      "help": "Extra steps at the first frame and after a cut, so that the dream is there at once."
    },
    "flow": {
      "label": "How motion is followed",
      "help": "How the dream finds where things move, to move with them."
    },
    "trust": {
      "label": "Where the dream stays on things",
      "help": "How it is decided where the moved dream still fits. Strict ways leave fewer ghosts."
    },
    "stillness": {
      "label": "Fades where things move",
      "help": "Motion at which only a third of the dream stays; 0 to keep all."
    },
    "cut": {
      "label": "When a new scene begins",
      "help": "Two frames less alike than this start a new dream; 0 for never."
    },
    "field_height": {
      "label": "Fineness of the dream",
      "help": "Lines on which the dream is computed. More make smaller and finer shapes, and take longer; 0 for those of the file."
    }
  },
  "looks": {
    "no_mix": "this is no mix of looks",
    "too_many": "too many looks are being mixed at once; try again",
    "title": "Looks",
    "modes": "What a look does",
    "use": "Choose",
    "use_title": "Use the look that you choose",
    "mix": "+ Mix",
    "mix_title": "Add the look that you choose to the present one",
    "subtract": "− Subtract",
    "subtract_title": "Less of the look that you choose",
    "how_much": "How much {look}",
    "less": "Less {look}",
    "no_answer": "The server does not answer.",
    "no_mix": "This is no mix of looks."
  },
  "own_looks": {
    "title": "My looks",
    "keep": "Keep this look",
    "keep_title": "Keep the present settings as a look in this browser",
    "name": "Name of the look",
    "new": "My look {number}",
    "edit": "Rename or delete {look}",
    "copy": "Copy link",
    "delete": "Delete",
    "done": "Done",
    "full": "{count} looks are kept. Delete one first.",
    "no_storage": "This browser keeps nothing for this page: it may be a private window."
  },
  "layer_words": {
    "inception_v3": {
      "max_pooling2d_1": "coloured specks",
      "max_pooling2d_2": "curls and folds",
      "mixed0": "fine lines and mazes",
      "mixed1": "mesh and scales",
      "mixed2": "grain and sparks",
      "mixed3": "scales and small eyes",
      "mixed4": "eyes in rings",
      "mixed5": "shining eyes and balls"
    },
    "strides": {
      "2": "edges and colours",
      "4": "lines and curls",
      "8": "fine patterns",
      "16": "textures and parts of things",
      "32": "whole things"
    }
  },
  "channels": {
    "chosen": "Chosen channels",
    "search": "Search: feathers, fur, eyes",
    "search_label": "Search channels by name",
    "modes": "What a click does",
    "more": "+ More like this",
    "less": "− Not this",
    "less_title": "Or Shift-click; with the keyboard, the minus key",
    "layers": "Layers",
    "cells": "Channels",
    "found_one": "1 channel",
    "found": "{count} channels",
    "none": "No channel has this name.",
    "one_stays": "One part must stay.",
    "full": "No more channels fit.",
    "less_of": "Less {name}",
    "more_of": "More {name}",
    "remove": "Remove {name}",
    "progress": "The pictures of the channels are being made: {done} of {count}."
  },
  "errors": {
    "invalid": "Invalid input",
    "failed": "Error",
    "internal": "Internal error. See the server's log.",
    "request": "The request was invalid. Reload the page.",
    "settings": "the settings are invalid; reload the page"
  },
  "layers_tab": {
    "network": "Network",
    "show": "Show",
    "order": "From low to high",
    "blocks": "Blocks",
    "all": "All layers",
    "channels": "Channels",
    "hint": "One photo, dreamed with each layer. Click one to use it in every tab.",
    "progress": "The pictures are being made: {done} of {count}.",
    "selected": "Layer selected",
    "all_use": "All tabs now use {layer}."
  }
};
